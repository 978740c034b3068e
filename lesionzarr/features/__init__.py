"""What is measured on lesions: sizes and densities, tracks over studies, response, and the tables made of them."""

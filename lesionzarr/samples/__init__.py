"""Made-up CT volumes and datasets, for tests, the demo and the notebooks.

`phantom` makes a body that looks like CT, `add_lesion` paints a lesion of known size and place into it, and
`deeplesion` writes a small dataset in DeepLesion's own layout; `QUIRKS` lists what can be odd or broken in it on
purpose. `lung_pet_ct_dx` and `LUNG_QUIRKS` do the same for Lung-PET-CT-Dx; they need the extra ``dicom``.
`recist_dataset` and `RECIST_QUIRKS` do it for recist-dataset, and `recist_truth` tells its lesions.

Everything here is synthetic: it comes from a seed and shows no patient. The package ships no real data, because the
terms of the real datasets are not its own to pass on, because one real series weighs more than the whole package, and
because only a made-up lesion has an exact size and place to test against.
"""

from lesionzarr.samples._deeplesion import deeplesion
from lesionzarr.samples._lesion import PhantomLesion, add_lesion
from lesionzarr.samples._nbia import lung_pet_ct_dx
from lesionzarr.samples._nbia_quirks import LUNG_QUIRKS
from lesionzarr.samples._phantom import phantom
from lesionzarr.samples._quirks import QUIRKS
from lesionzarr.samples._recist import recist_dataset, recist_truth
from lesionzarr.samples._recist_plan import Ellipsoid
from lesionzarr.samples._recist_quirks import RECIST_QUIRKS

__all__ = [
    "LUNG_QUIRKS",
    "QUIRKS",
    "RECIST_QUIRKS",
    "Ellipsoid",
    "PhantomLesion",
    "add_lesion",
    "deeplesion",
    "lung_pet_ct_dx",
    "phantom",
    "recist_dataset",
    "recist_truth",
]

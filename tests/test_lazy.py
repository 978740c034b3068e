"""Properties that are worked out once: for each object, and without waiting for other objects."""

import threading

from lesionzarr._lazy import cached_property


class Slow:
    def __init__(self, work):
        self.work = work
        self.calls = 0

    @cached_property
    def value(self):
        """The docstring."""
        self.calls += 1
        return self.work()


def test_it_is_worked_out_once():
    slow = Slow(lambda: 5)
    assert (slow.value, slow.value, slow.calls) == (5, 5, 1)
    assert Slow.value.__doc__ == "The docstring."


def test_one_object_does_not_wait_for_another():
    # a lock that all objects share stays locked in a child that is forked while another thread holds it
    begun, released = threading.Event(), threading.Event()

    def work():
        begun.set()
        return released.wait(60)

    first, second = Slow(work), Slow(lambda: 2)
    thread = threading.Thread(target=lambda: first.value)
    thread.start()
    try:
        assert begun.wait(60)
        found = []
        other = threading.Thread(target=lambda: found.append(second.value), daemon=True)
        other.start()
        other.join(60)
        assert found == [2]
    finally:
        released.set()
        thread.join()
    assert first.value is True

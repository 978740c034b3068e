"""The order of an epoch: properties that hold for any lesions, seeds, ranks and batch sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from inspect import signature

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import lesionzarr
from lesionzarr.errors import SettingError
from lesionzarr.lesion import Lesion
from lesionzarr.readers._order import Order, Ordering, order_batches, order_lesions


def lesion(number=0, **values):
    place = {"key_z": 3, "x0": 1.0, "y0": 1.0, "x1": 4.0, "y1": 4.0}
    return Lesion(f"lesion{number}", "volume", "series", **(place | values))


def lesions(count, **values):
    return [lesion(number, **values) for number in range(count)]


some_lesions = st.lists(
    st.builds(
        lesion,
        type=st.sampled_from([None, "lung", "liver"]),
        long_mm=st.one_of(st.none(), st.floats(1, 100)),
        split=st.sampled_from([None, "train", "val"]),
        noisy=st.sampled_from([None, True, False]),
        key_z=st.sampled_from([None, 3, 3, 3]),
    ),
    min_size=1,
    max_size=60,
)
orders = st.builds(
    Order,
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 2**40),
    drop_noisy=st.booleans(),
    balance=st.sampled_from([None, "type", "size"]),
    drop_last=st.booleans(),
)


def placed(found, order):
    return [
        number for number, one in enumerate(found) if one.key_z is not None and not (order.drop_noisy and one.noisy)
    ]


def flat(batches):
    return [int(number) for batch in batches for number in batch]


@given(some_lesions, orders)
def test_an_epoch_without_balance_is_a_permutation_of_what_is_asked_for(found, order):
    assume(placed(found, order))
    order = replace(order, balance=None, drop_last=False)
    batches = order_batches(found, order)
    assert sorted(flat(batches)) == placed(found, order)
    assert all(len(batch) == order.batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= order.batch_size


@given(some_lesions, orders)
def test_balance_keeps_the_length_and_shows_only_what_is_asked_for(found, order):
    expected = placed(found, order)
    assume(expected)
    shown = order_lesions(found, order)
    assert len(shown) == len(expected)
    assert set(shown) <= set(expected)


@given(some_lesions, orders, st.integers(1, 7), st.integers(0, 70))
def test_ranks_deal_out_one_list_and_resuming_gives_its_tail(found, order, ranks, start):
    assume(placed(found, order))
    whole = [batch.tolist() for batch in order_batches(found, order)]
    start = min(start, len(whole))
    dealt = {}
    for rank in range(ranks):
        own = replace(order, rank=rank, ranks=ranks)
        part = [batch.tolist() for batch in order_batches(found, own)]
        resumed = [batch.tolist() for batch in order_batches(found, replace(own, start_batch=start))]
        skipped = len(range(rank, start, ranks))
        assert resumed == part[skipped:]
        dealt |= dict(zip(range(rank, len(whole), ranks), part, strict=True))
    assert [dealt[number] for number in range(len(whole))] == whole


@given(some_lesions, orders)
def test_drop_last_leaves_out_nothing_but_a_batch_that_is_not_full(found, order):
    assume(placed(found, order))
    every = [batch.tolist() for batch in order_batches(found, replace(order, drop_last=False))]
    full = [batch.tolist() for batch in order_batches(found, replace(order, drop_last=True))]
    assert full == [batch for batch in every if len(batch) == order.batch_size]


def test_a_seed_and_an_epoch_are_the_same_order_everywhere_and_always():
    # a change of these numbers breaks every run that is to go on
    assert flat(order_batches(lesions(10), Order(seed=7, epoch=3))) == [2, 1, 4, 8, 9, 3, 5, 7, 6, 0]
    mixed = [lesion(number, type=name) for number, name in enumerate(["lung"] * 7 + ["liver", None, "bone"])]
    assert flat(order_batches(mixed, Order(seed=7, epoch=3, balance="type"))) == [8, 7, 8, 7, 9, 4, 7, 7, 3, 7]


def test_every_seed_and_every_epoch_has_an_order_of_its_own():
    seen = {
        tuple(flat(order_batches(lesions(30), Order(seed=seed, epoch=epoch))))
        for seed in (0, 1, 2**32, 2**64)
        for epoch in (0, 1, 2**32)
    }
    assert len(seen) == 12


def test_without_a_seed_the_order_is_the_one_given():
    assert flat(order_batches(lesions(10), Order(epoch=5, batch_size=3))) == list(range(10))


def frequencies(found, name, balance):
    drawn = order_lesions(found, Order(seed=1, balance=balance))
    counts = Counter(name(found[number]) for number in drawn)
    return {key: count / len(drawn) for key, count in counts.items()}


def test_every_type_is_as_likely_and_none_is_one_of_them():
    names = ["lung"] * 8000 + ["liver"] * 1500 + ["bone"] * 100 + [None] * 400
    found = [lesion(number, type=name) for number, name in enumerate(names)]
    # 10,000 draws with a chance of 1/4 scatter by 0.0043
    assert frequencies(found, lambda one: one.type, "type") == pytest.approx(
        dict.fromkeys(["lung", "liver", "bone", None], 1 / 4), abs=0.025
    )


def test_members_of_a_class_are_as_likely_as_each_other():
    found = [lesion(number, type="lung" if number < 9990 else "bone") for number in range(10_000)]
    drawn = Counter(order_lesions(found, Order(seed=1, balance="type")).tolist())
    assert [drawn[number] / 10_000 for number in range(9990, 10_000)] == pytest.approx([1 / 20] * 10, abs=0.015)


def test_every_quarter_of_the_sizes_is_as_likely_and_no_size_is_a_class_of_its_own():
    sizes = [float(size) for size in np.random.default_rng(0).lognormal(2.5, 0.6, 9900)] + [None] * 100
    found = [lesion(number, long_mm=size) for number, size in enumerate(sizes)]
    quarters = np.quantile(sizes[:9900], [0.25, 0.5, 0.75])

    def quarter(one):
        return None if one.long_mm is None else int((quarters < one.long_mm).sum())

    assert frequencies(found, quarter, "size") == pytest.approx(dict.fromkeys([0, 1, 2, 3, None], 1 / 5), abs=0.025)


def test_sizes_that_are_all_alike_or_unknown_are_one_class():
    for size in (5.0, None):
        drawn = order_lesions(lesions(50, long_mm=size), Order(seed=0, balance="size"))
        assert len(set(drawn.tolist())) > 20


def test_quarters_are_those_of_the_lesions_that_take_part():
    # 90 large lesions of another split would put all of these into one quarter
    small = [lesion(number, long_mm=1.0 if number else 9.0, split="val") for number in range(10)]
    large = [lesion(number, long_mm=100.0 + number, split="train") for number in range(90)]
    shown = [order_lesions(small + large, Order(seed=seed, split="val", balance="size")) for seed in range(100)]
    assert np.mean(np.concatenate(shown) == 0) == pytest.approx(1 / 2, abs=0.1)


def test_a_split_and_noisy_lesions():
    found = [lesion(0, split="val"), lesion(1, split="train", noisy=True), lesion(2, split="train"), lesion(3)]
    assert flat(order_batches(found, Order(split="train"))) == [1, 2]
    assert flat(order_batches(found, Order(split="train", drop_noisy=True))) == [2]
    assert flat(order_batches(found, Order(drop_noisy=True))) == [0, 2, 3]


def test_lesions_without_a_position_are_left_out():
    found = [lesion(0), lesion(1, key_z=None), lesion(2, x0=None), lesion(3, key_z=None, z0=1.0, z1=2.0)]
    assert flat(order_batches(found, Order())) == [0, 3]


def test_a_rank_beyond_the_last_batch_has_none():
    assert order_batches(lesions(3), Order(batch_size=2, rank=2, ranks=3)) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size 2.0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": "x"}, "seed 'x'"),
        ({"epoch": -1}, "epoch -1"),
        ({"epoch": None}, "epoch None"),
        ({"rank": 2, "ranks": 2}, "rank 2 of 2: ranks count from 0 to 1"),
        ({"rank": -1}, "rank -1"),
        ({"ranks": 0}, "ranks 0"),
        ({"start_batch": -1}, "start_batch -1"),
        ({"balance": "age", "seed": 0}, "balance 'age': 'type', 'size' or None"),
        ({"balance": "type"}, "a seed is needed"),
    ],
)
def test_an_order_that_means_nothing_is_refused(asked, message):
    with pytest.raises(SettingError) as caught:
        Order(**asked)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split": "vall"}, "split 'vall': no lesion is of it; the splits here are: train"),
        ({"start_batch": 4, "batch_size": 2}, "start_batch 4: the epoch has 3 batches"),
        ({"drop_noisy": True}, "no lesions to read"),
    ],
)
def test_an_order_that_these_lesions_do_not_have_is_refused(asked, message):
    with pytest.raises(SettingError, match=message):
        order_batches(lesions(5, split="train", noisy=True), Order(**asked))


def test_every_face_has_the_same_choices_with_the_same_defaults():
    defaults = {field.name: field.default for field in fields(Order)}
    keywords = signature(lesionzarr.CropReader.batches).parameters
    assert {name: keywords[name].default for name in defaults} == defaults
    assert list(Ordering.__annotations__) == list(defaults)

"""Test Hydra's ranges as the space of a search."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import FloatDistribution

from ghostexp.sweeps.search.space import is_searched, read_dimension
from tests.sweeps.search.fake_trials import dimensions

PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    ("text", "kind", "corners"),
    [
        ("a=choice(1e-4,'x y',[1,2])", "choice", ["0.0001", "x\\ y", "[1,2]"]),
        ("a=range(1,7,2)", "int", ["1", "5"]),
        ("a=range(0.1,0.5,0.1)", "float", ["0.1", "0.4"]),
        ("a=range(0.7,1.05,0.1)", "float", ["0.7", "1.0"]),
        ("a=shuffle(range(1,4))", "int", ["1", "3"]),
        ("a=interval(0.01,1)", "float", ["0.01", "1.0"]),
        ("a=tag(log,interval(1e-5,1e-2))", "float", ["1e-05", "0.01"]),
        ("a=tag(log,int(interval(1,64)))", "int", ["1", "64"]),
        ("a=tag(int,interval(1,64))", "int", ["1", "64"]),
    ],
)
def test_ranges_of_hydra_become_dimensions(text: str, kind: str, corners: list[str]) -> None:
    assert is_searched(PARSER.parse_override(text))
    (found,) = dimensions(text)
    assert (found.kind, found.corners) == (kind, corners)
    assert [found.as_text(found.from_text(value)) for value in found.corners] == found.corners
    assert all(PARSER.parse_override(f"a={value}").value() is not None for value in found.corners)


@pytest.mark.parametrize("text", ["range(0.1,0.5,0.1)", "range(0.3,0.7,0.1)", "range(0.7,1.0,0.1)"])
def test_values_of_a_range_have_no_rounding_errors(text: str) -> None:
    (found,) = dimensions(f"a={text}")
    assert all(len(choice) == 3 for choice in found.choices)
    distribution = FloatDistribution(found.low, found.high, step=found.step)
    assert distribution.high == float(found.choices[-1])
    assert all(distribution._contains(float(choice)) for choice in found.choices)


def test_single_values_are_a_grid() -> None:
    assert not any(is_searched(PARSER.parse_override(text)) for text in ("a=1", "a=1,2", "a=[1,2]"))


def test_numbers_have_few_digits_and_stay_inside() -> None:
    (found,) = dimensions("a=tag(log,interval(0.0012344,1))")
    assert found.as_text(0.0316227766) == "0.03162"
    assert found.as_text(0.0012344) == "0.0012344"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=interval(1,1)", "must have a lower end below its upper end"),
        ("a=tag(log,interval(0,1))", "must be numbers > 0 with tag(log)"),
        ("a=tag(log,range(1,5))", "tag(log) needs an interval"),
        ("a=tag(ordinal,interval(1,5))", "tag must be log or int, got ordinal"),
        ("a=tag(int,interval(1.5,5))", "must be integers with int"),
        ("a=range(1,2)", "must have several values"),
    ],
)
def test_wrong_range_is_an_error(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text}: {wanted}")):
        read_dimension(PARSER.parse_override(text))

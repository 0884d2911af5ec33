"""Statistics over seeds, compared with scipy."""

import numpy as np
import pytest
from scipy import stats

from ghostexp.report.statistics import Estimate, estimate, paired

ACCURACIES = {
    3: [98.61, 98.89, 98.2],
    5: [93.1, 94.4, 92.8, 93.6, 95.0],
    30: list(np.random.default_rng(0).normal(90, 2, 30)),
}


@pytest.mark.parametrize("n", ACCURACIES)
def test_estimate_interval_equals_scipy(n: int) -> None:
    values = ACCURACIES[n]
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (found.n, found.mean, found.sd) == (n, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))


def test_paired_interval_equals_scipy() -> None:
    ours, baseline = ACCURACIES[5], [94.0, 94.2, 94.1, 93.9, 95.5]
    found = paired(dict(enumerate(ours)), dict(enumerate(baseline)))
    assert found is not None
    expected = stats.ttest_rel(ours, baseline).confidence_interval(0.95)
    assert found.estimate.interval == pytest.approx((expected.low, expected.high), rel=1e-12)
    unpaired = stats.ttest_ind(ours, baseline).confidence_interval(0.95)
    assert found.estimate.interval != pytest.approx((unpaired.low, unpaired.high), rel=1e-3)


def test_estimate_of_one_value_has_no_interval() -> None:
    assert estimate([93.5]) == Estimate(1, 93.5, None, None)
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_paired_uses_common_seeds() -> None:
    found = paired({3: 90.0, 0: 91.0, 1: 95.0}, {1: 94.0, 0: 93.0, 7: 50.0})
    assert found is not None
    assert found.differences == {0: -2.0, 1: 1.0}
    assert found.estimate.mean == -0.5
    assert found.left_out == (3, 7)
    assert paired({0: 90.0}, {1: 90.0}) is None


def test_interval_is_clipped_to_possible_range() -> None:
    found = estimate([99.9, 99.0, 98.0], (0.0, 100.0))
    assert found.interval == (pytest.approx(96.606, abs=1e-3), 100.0)
    low = paired({0: -99.0, 1: -98.0, 2: -90.0}, {0: 0.0, 1: 1.0, 2: 2.0}, (-100.0, 100.0))
    assert low is not None
    assert low.estimate.interval == (-100.0, pytest.approx(-86.63, abs=1e-2))


def test_estimate_of_two_values_keeps_them() -> None:
    found = estimate([90.0, 95.0])
    assert (found.interval, found.values, found.mean) == (None, (90.0, 95.0), 92.5)
    assert found.sd == pytest.approx(3.5355, abs=1e-4)

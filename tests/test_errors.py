"""Messages about unknown names, and which errors are user errors."""

import pytest

from demiglace import errors


@pytest.mark.parametrize(("given", "near"), [("sst3", "sst2"), ("SST2", "sst2"), ("rail_kd_l", "rail-kd-l")])
def test_the_nearest_name_is_suggested(given, near):
    message = errors.unknown("name", given, ["mrpc", "sst2", "rail-kd-l"])
    assert message == f"unknown name {given!r}; did you mean {near!r}? Known: mrpc, sst2, rail-kd-l"


def test_nothing_is_suggested_where_nothing_is_near():
    assert errors.unknown("task", "xyzzy", iter(["mrpc", "sst2"])) == "unknown task 'xyzzy'. Known: mrpc, sst2"


def test_every_error_of_ours_is_a_user_error_but_the_one_that_tells_of_our_faults():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 5
    assert [kind for kind in kinds if not issubclass(kind, errors.UserError)] == [errors.FailedRunsError]

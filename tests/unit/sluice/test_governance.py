"""What people type about rows to forget and about who may read them."""

import pytest

from kit.rpc.errors import Invalid
from sluice.cli.forgetting import _predicate
from sluice.client import governance


@pytest.mark.parametrize(
    ("where", "column", "values"),
    [
        (["patient_id=P17"], "patient_id", ["P17"]),
        (["group=a=b"], "group", ["a=b"]),
        (["id=1", "id=2", "id=1"], "id", ["1", "2"]),
    ],
)
def test_a_predicate_is_one_column_and_its_values(where, column, values):
    assert _predicate(where) == (column, values)


@pytest.mark.parametrize(
    ("where", "said"),
    [([], "whose rows"), (["P17"], "whose rows"), (["id="], "whose rows"), (["id=1", "group=2"], "at a time")],
)
def test_anything_else_is_refused(where, said):
    with pytest.raises(Invalid, match=said):
        _predicate(where)


def test_who_gets_a_right():
    assert governance.grantee("projects/p", "ci") == "projects/p/apiKeys/ci"
    assert governance.grantee("projects/p", "role:engineering") == "roles/engineering"
    assert governance.grantee("projects/p", "projects/q/apiKeys/x") == "projects/q/apiKeys/x"
    for name in ("role:admin", "role:inference", "role:boss"):
        with pytest.raises(Invalid, match="there are algorithm"):
            governance.grantee("projects/p", name)
    with pytest.raises(Invalid, match="project and granted"):
        governance.access_of("nobody")

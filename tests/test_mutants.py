"""Each rule that `make mutants` breaks stands where it is looked for."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_the_line_of_a_mutant_is_there_once(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.line) == 1

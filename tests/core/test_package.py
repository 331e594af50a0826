"""The package finds its methods by listing files and imports them at first use."""

import subprocess
import sys

import pytest

import reference_impls as ri


def test_importing_the_package_imports_neither_torch_nor_any_method():
    code = "import sys, reference_impls; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'scipy', 'sklearn', 'ot')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_method_is_reached_by_its_name_and_by_its_full_path():
    from reference_impls.task_vectors.ties_merging import ties_merging

    assert ri.ties_merging is ties_merging and ri.task_vectors.ties_merging.ties_merging is ties_merging
    assert set(ri.methods()) <= set(dir(ri))


def test_importing_all_methods_needs_nothing_but_torch():
    code = (
        "import sys, reference_impls as ri; [getattr(ri, name) for name in ri.methods()];"
        "print([m for m in ('scipy', 'sklearn', 'ot', 'pydantic', 'yaml') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tie_merging'"):
        ri.tie_merging

"""What compiled classes allow (setup.py): as engine/compiled.py, which knows nothing of us."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_):
        return lambda decorated: decorated


__all__ = ["mypyc_attr"]

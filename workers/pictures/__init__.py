"""Pictures: charts as SVG that needs no script, and the pages that hold them."""

from lockstep.workers.pictures.profile import profile_page

__all__ = ["profile_page"]

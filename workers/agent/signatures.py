"""Types of every function a guest may import, and of every export it may have.

WASI preview 1 is listed whole (46 functions): a language runtime imports what it might need, and
a module must not be refused for a function it never calls.
"""

Signature = tuple[tuple[str, ...], tuple[str, ...]]


def _sig(params: str, result: str = "i") -> Signature:
    names = {"i": "i32", "I": "i64"}
    return tuple(names[p] for p in params), tuple(names[r] for r in result)


LOCKSTEP = "lockstep"
LOCKSTEP_FUNCTIONS: dict[str, Signature] = {
    "turn": _sig("iiii"),
    "submit": _sig("ii", ""),
}

WASI = "wasi_snapshot_preview1"
WASI_FUNCTIONS: dict[str, Signature] = {
    "args_get": _sig("ii"),
    "args_sizes_get": _sig("ii"),
    "environ_get": _sig("ii"),
    "environ_sizes_get": _sig("ii"),
    "clock_res_get": _sig("ii"),
    "clock_time_get": _sig("iIi"),
    "fd_advise": _sig("iIIi"),
    "fd_allocate": _sig("iII"),
    "fd_close": _sig("i"),
    "fd_datasync": _sig("i"),
    "fd_fdstat_get": _sig("ii"),
    "fd_fdstat_set_flags": _sig("ii"),
    "fd_fdstat_set_rights": _sig("iII"),
    "fd_filestat_get": _sig("ii"),
    "fd_filestat_set_size": _sig("iI"),
    "fd_filestat_set_times": _sig("iIIi"),
    "fd_pread": _sig("iiiIi"),
    "fd_prestat_get": _sig("ii"),
    "fd_prestat_dir_name": _sig("iii"),
    "fd_pwrite": _sig("iiiIi"),
    "fd_read": _sig("iiii"),
    "fd_readdir": _sig("iiiIi"),
    "fd_renumber": _sig("ii"),
    "fd_seek": _sig("iIii"),
    "fd_sync": _sig("i"),
    "fd_tell": _sig("ii"),
    "fd_write": _sig("iiii"),
    "path_create_directory": _sig("iii"),
    "path_filestat_get": _sig("iiiii"),
    "path_filestat_set_times": _sig("iiiiIIi"),
    "path_link": _sig("iiiiiii"),
    "path_open": _sig("iiiiiIIii"),
    "path_readlink": _sig("iiiiii"),
    "path_remove_directory": _sig("iii"),
    "path_rename": _sig("iiiiii"),
    "path_symlink": _sig("iiiii"),
    "path_unlink_file": _sig("iii"),
    "poll_oneoff": _sig("iiii"),
    "proc_exit": _sig("i", ""),
    "proc_raise": _sig("i"),
    "random_get": _sig("ii"),
    "sched_yield": _sig(""),
    "sock_accept": _sig("iii"),
    "sock_recv": _sig("iiiiii"),
    "sock_send": _sig("iiiii"),
    "sock_shutdown": _sig("ii"),
}

IMPORTS: dict[str, dict[str, Signature]] = {LOCKSTEP: LOCKSTEP_FUNCTIONS, WASI: WASI_FUNCTIONS}

# Exports that mean something here; a module may have others.
EXPORTS: dict[str, tuple[Signature, ...]] = {
    "_start": (_sig("", ""),),
    "main": (_sig("", ""), _sig("", "i")),
    "_initialize": (_sig("", ""),),
    "on_events": (_sig("ii"),),
    "lockstep_alloc": (_sig("i"),),
}


def text(signature: Signature) -> str:
    """``(i32, i32) -> (i32)``: how a signature is printed."""
    params, results = signature
    return f"({', '.join(params)}) -> ({', '.join(results)})"

"""The compiled parts. Where no C compiler is found they are left out, and NumPy does their work."""

from setuptools import Extension, setup

HEADERS = [
    f"storage/tokens/{name}.h"
    for name in ("bounds", "crc32c", "gather_rows", "map_shards", "mapped", "page_faults", "widen")
]
FLAGS = ["-O3", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
PARTS = {
    "trainwright.storage.tokens._gather": "storage/tokens/gather.c",
    "trainwright.storage.tokens._frame": "storage/tokens/frame.c",
    "trainwright.storage.loading._order": "storage/loading/order.c",
}

setup(
    ext_modules=[
        Extension(name, [source], extra_compile_args=FLAGS, depends=HEADERS, py_limited_api=True, optional=True)
        for name, source in PARTS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

"""The one compiled part. Where no C compiler is found it is left out, and NumPy does its work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "trainwright.storage.tokens._gather",
            ["storage/tokens/gather.c"],
            extra_compile_args=["-O3", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

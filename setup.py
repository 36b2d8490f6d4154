"""Packaging of autodl: `pip install .` gives the `autodl` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "([^"]+)"', (here / "autodl_lib" / "__init__.py").read_text("utf-8"))[1]

setup(
    name="autodl",
    version=version,
    description="The download service of a Linux machine: every user hands it URLs, it downloads as them",
    long_description=(here / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    py_modules=["autodl"],
    packages=find_packages(include=["autodl_lib", "autodl_lib.*"]),
    package_data={"autodl_lib.store": ["sql/*.sql", "migrations/*.sql"]},
    install_requires=["pycurl>=7.45.2", "click>=8.1.3", "psutil>=5.9", "rich>=12.4"],
    extras_require={
        "test": [
            "pytest>=7.2",
            "pytest-timeout>=2.1",
            "hypothesis>=6.67",
            "trustme>=1.2",
            "pyftpdlib>=2.0",
            "pyopenssl>=24",
            "ruff",
            "mypy",
            "import-linter",
            "types-psutil",
            "types-pycurl",
        ],
    },
    entry_points={"console_scripts": ["autodl = autodl:main"]},
    classifiers=[
        "Environment :: Console",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Internet :: File Transfer Protocol (FTP)",
        "Topic :: Internet :: WWW/HTTP",
    ],
)

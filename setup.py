"""Packaging of autodl: `pip install .` gives the `autodl` command."""

import re
from glob import glob
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
    # The units go along, for `autodl install-service`.
    packages=[*find_packages(include=["autodl_lib", "autodl_lib.*"]), "autodl_lib.systemd_units"],
    package_dir={"autodl_lib.systemd_units": "systemd"},
    package_data={
        "autodl_lib.store": ["sql/*.sql", "migrations/*.sql"],
        "autodl_lib.systemd_units": ["*.service", "*.socket", "*.conf", "user/*"],
    },
    data_files=[
        *[(f"share/man/man{section}", glob(f"man/*.{section}")) for section in (1, 5, 7, 8)],
        ("share/bash-completion/completions", ["completions/bash/autodl"]),
        ("share/zsh/site-functions", ["completions/zsh/_autodl"]),
        ("share/fish/vendor_completions.d", ["completions/fish/autodl.fish"]),
    ],
    install_requires=["pycurl>=7.45.2", "click>=8.1.3", "psutil>=5.9", "rich>=12.4"],
    extras_require={
        "http": ["h11>=0.14"],
        "test": [
            "pytest>=7.2",
            "pytest-timeout>=2.1",
            "pytest-xdist>=3.1",
            "hypothesis>=6.67",
            "h11>=0.14",
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

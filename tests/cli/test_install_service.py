"""`autodl install-service` writes the units with the program's own path, and takes away only what it wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fake_daemon import ROOT, Run, autodl

from autodl_lib.cli.service_files import MARK, unit_word
from autodl_lib.cli.service_setup import check_program
from autodl_lib.contract.errors import NotAllowed
from autodl_lib.contract.settings import Settings, settings_from_toml

SYSTEM = {
    "etc/systemd/system/autodl.service",
    "etc/systemd/system/autodl.socket",
    "etc/sysusers.d/autodl.conf",
    "etc/tmpfiles.d/autodl.conf",
    "etc/autodl/autodl.toml",
}
OF_USER = {
    ".config/systemd/user/autodl.service",
    ".config/systemd/user/autodl.socket",
    ".config/autodl/autodl.toml",
}


@pytest.fixture
def image(home: Path) -> Path:
    """An empty tree to install into."""
    (home / "image").mkdir()
    return home / "image"


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_machines_units_accounts_folders_and_configuration_are_written(run: Run, image: Path) -> None:
    done = run("install-service", "--system", "--root", str(image))
    assert (done.returncode, done.stderr) == (0, "")
    assert files_below(image) == SYSTEM
    assert {*done.stdout.splitlines()} == {f"wrote {image / name}" for name in SYSTEM}


def test_a_users_units_and_configuration_are_written_below_the_home(run: Run, image: Path, home: Path) -> None:
    assert run("install-service", "--user", "--root", str(image)).returncode == 0
    assert files_below(image / home.relative_to("/")) == OF_USER
    elsewhere = run("install-service", "--user", "--root", str(image), XDG_CONFIG_HOME="/conf")
    assert elsewhere.returncode == 0
    assert files_below(image / "conf") == {name.removeprefix(".config/") for name in OF_USER}


def test_the_units_are_those_of_the_repository_but_for_the_program(run: Run, image: Path) -> None:
    run("install-service", "--system", "--root", str(image))
    for name in ("autodl.service", "autodl.socket"):
        written = (image / "etc/systemd/system" / name).read_text()
        ours = (ROOT / "systemd" / name).read_text()
        program = rf"\S+ {re.escape(str(ROOT / 'autodl.py'))}"
        assert re.sub(rf"(?m)^(ExecStart=){program}", r"\1/usr/bin/autodl", written) == MARK + ours


@pytest.mark.parametrize("scope", ["--system", "--user"])
def test_a_program_with_any_name_is_one_word_to_systemd(scope: str, image: Path, home: Path) -> None:
    folder = home / 'a "b" 100% $x'
    folder.mkdir()
    program = folder / "autodl"
    start = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom autodl import main\nsys.exit(main())\n"
    program.write_text(f"#!{sys.executable}\n{start}")
    program.chmod(0o755)
    command = [str(program), "install-service", scope, "--root", str(image)]
    subprocess.run(command, check=True, capture_output=True, env={"HOME": str(home), "PATH": os.environ["PATH"]})
    [unit] = image.rglob("autodl.service")
    word = f'"{home}/a \\"b\\" 100%% $$x/autodl"'
    assert re.search(rf"^ExecStart={re.escape(word)} daemon", unit.read_text(), re.MULTILINE)


def test_plain_words_are_not_quoted() -> None:
    assert unit_word("/opt/autodl/bin/autodl") == "/opt/autodl/bin/autodl"
    assert unit_word("a b") == '"a b"'


def test_the_configuration_that_is_written_changes_nothing(run: Run, image: Path) -> None:
    run("install-service", "--system", "--root", str(image))
    document = tomllib.loads((image / "etc/autodl/autodl.toml").read_text())
    assert settings_from_toml(document, "autodl.toml") == Settings()


def test_a_configuration_that_is_there_is_kept(run: Run, image: Path) -> None:
    config = image / "etc/autodl/autodl.toml"
    config.parent.mkdir(parents=True)
    config.write_text("max_tasks_num = 3\n")
    done = run("install-service", "--system", "--root", str(image))
    assert f"kept {config}" in done.stdout
    run("install-service", "--system", "--root", str(image), "--uninstall")
    assert config.read_text() == "max_tasks_num = 3\n"


@pytest.mark.parametrize("scope", ["--system", "--user"])
def test_uninstalling_leaves_nothing_of_it(scope: str, run: Run, image: Path) -> None:
    run("install-service", scope, "--root", str(image))
    written = files_below(image)
    done = run("install-service", scope, "--root", str(image), "--uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_below(image) == set()
    assert not list(image.rglob("etc/autodl"))
    assert not list(image.rglob(".config/autodl"))
    assert {line.removeprefix(f"removed {image}/") for line in done.stdout.splitlines()} >= written


def test_uninstalling_keeps_a_configuration_that_was_changed(run: Run, image: Path) -> None:
    run("install-service", "--system", "--root", str(image))
    config = image / "etc/autodl/autodl.toml"
    config.write_text(config.read_text() + "max_tasks_num = 3\n")
    done = run("install-service", "--system", "--root", str(image), "--uninstall")
    assert f"kept {config}" in done.stdout
    assert files_below(image) == {"etc/autodl/autodl.toml"}


def test_a_unit_of_somebody_else_is_neither_replaced_nor_removed(run: Run, image: Path) -> None:
    unit = image / "etc/systemd/system/autodl.socket"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Socket]\n")
    done = run("install-service", "--system", "--root", str(image))
    assert (done.returncode, done.stdout) == (1, "")
    assert "autodl.socket was not written by install-service: move it away" in done.stderr
    assert files_below(image) == {"etc/systemd/system/autodl.socket"}, "nothing else was written either"
    run("install-service", "--system", "--root", str(image), "--uninstall")
    assert unit.read_text() == "[Socket]\n"


def test_installing_again_brings_units_up_to_date(run: Run, image: Path) -> None:
    run("install-service", "--system", "--root", str(image))
    unit = image / "etc/systemd/system/autodl.service"
    text = unit.read_text()
    unit.write_text(MARK + "[Service]\nExecStart=/gone/autodl daemon\n")
    assert run("install-service", "--system", "--root", str(image)).returncode == 0
    assert unit.read_text() == text


@pytest.mark.parametrize(("scope", "folder"), [("--system", "usr/lib/systemd/system"), ("--user", "lib/systemd/user")])
def test_units_of_a_package_are_enough(scope: str, folder: str, run: Run, image: Path) -> None:
    (image / folder).mkdir(parents=True)
    (image / folder / "autodl.service").touch()
    done = run("install-service", scope, "--root", str(image))
    assert done.returncode == 1
    assert f"{folder}/autodl.service already" in done.stderr


def test_there_is_nothing_to_uninstall_where_nothing_was_installed(run: Run, image: Path) -> None:
    done = run("install-service", "--system", "--root", str(image), "--uninstall")
    assert (done.returncode, done.stdout) == (0, "nothing was installed\n")


def test_what_was_done_is_one_document_with_json(run: Run, image: Path) -> None:
    steps = json.loads(run("install-service", "--system", "--json", "--root", str(image)).stdout)["steps"]
    assert {(step["did"], step["what"]) for step in steps} == {("wrote", f"{image}/{name}") for name in SYSTEM}


def test_the_two_scopes_exclude_each_other(run: Run, image: Path) -> None:
    assert run("install-service", "--system", "--user", "--root", str(image)).returncode == 2


def test_the_machines_service_is_for_root_to_install(home: Path) -> None:
    home.chmod(0o777)
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, str(ROOT / "autodl.py")]
    done = subprocess.run(
        [*command, "install-service", "--system"], env={"HOME": str(home)}, cwd="/", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert "--user installs one of yours" in done.stderr


# What root's service runs must be root's.


def test_a_program_in_roots_own_folders_is_fit_for_the_service() -> None:
    check_program(["/usr/bin/env"])


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_program_that_belongs_to_a_user_is_refused(where: str, home: Path) -> None:
    program = home / "bin" / "autodl"
    program.parent.mkdir()
    program.touch()
    home.chmod(0o755)
    check_program([str(program)])
    os.chown(program if where == "file" else program.parent, 65534, -1)
    with pytest.raises(NotAllowed, match="others than root can change"):
        check_program([str(program)])


def test_a_program_that_everybody_can_write_is_refused(home: Path) -> None:
    program = home / "autodl"
    program.touch()
    home.chmod(0o755)
    program.chmod(0o777)
    with pytest.raises(NotAllowed, match="others than root can change"):
        check_program([str(program)])


def test_a_link_to_a_program_of_a_user_is_refused(home: Path) -> None:
    home.chmod(0o755)
    (home / "theirs").touch()
    os.chown(home / "theirs", 65534, -1)
    (home / "autodl").symlink_to("theirs")
    with pytest.raises(NotAllowed, match="theirs"):
        check_program([str(home / "autodl")])


def test_a_program_that_workers_could_not_read_is_refused(home: Path) -> None:
    home.chmod(0o755)
    (home / "closed").mkdir(mode=0o700)
    (home / "closed" / "autodl").touch()
    with pytest.raises(NotAllowed, match="they can't read"):
        check_program([str(home / "closed" / "autodl")])


def test_no_other_command_line_installs_anything(home: Path) -> None:
    assert autodl("install-service", "--help", cwd=home).returncode == 0
    assert autodl("install-service", "surplus", cwd=home).returncode == 2

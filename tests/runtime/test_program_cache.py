"""Compiled programs are kept on disk, unless JAX is configured otherwise."""

import logging
import os
from pathlib import Path

import jax
import pytest

from flaxbert.runtime import program_cache

KEYS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """JAX as it is without settings: the tests' own cache is set again afterwards."""
    before = {key: getattr(jax.config, key) for key in KEYS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for key, value in before.items():
        jax.config.update(key, value)


def test_programs_are_kept_in_the_cache_directory_of_the_user(unset, tmp_path):
    program_cache.enable()
    directory = Path(program_cache.directory() or "")
    assert directory.parent == tmp_path / "cache" / "flaxbert" / "programs"
    assert directory.stat().st_mode & 0o077 == 0  # JAX runs what it finds there
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_without_xdg_cache_home_the_directory_is_below_the_home_directory(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ana")
    parent = program_cache.default_directory().parent
    assert parent == Path("/home/ana/.cache/flaxbert/programs")


def test_machines_with_other_processors_use_other_directories(monkeypatch):
    here = program_cache.default_directory()
    read_text = Path.read_text

    def other(self: Path, **options):
        text = read_text(self, **options)
        return text.replace("flags", "flags\t: amx") if str(self) == "/proc/cpuinfo" else text

    monkeypatch.setattr(Path, "read_text", other)
    monkeypatch.setattr(program_cache.platform, "processor", lambda: "another")
    assert program_cache.default_directory() != here


def test_settings_of_the_program_stay(unset, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    program_cache.enable()
    assert program_cache.directory() == str(tmp_path / "mine")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1


def test_minimum_compile_time_of_the_environment_stays(unset, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    program_cache.enable()
    assert program_cache.directory() is not None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1


def test_cache_that_is_switched_off_stays_off(unset, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        program_cache.enable()
        assert program_cache.directory() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not (tmp_path / "cache").exists()


def test_empty_directory_in_the_environment_switches_the_cache_off(unset, tmp_path):
    jax.config.update("jax_compilation_cache_dir", "")  # JAX_COMPILATION_CACHE_DIR=
    program_cache.enable()
    assert program_cache.directory() is None
    assert not (tmp_path / "cache").exists()


def test_directory_that_cannot_be_written_is_one_log_line(unset, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    caplog.set_level(logging.INFO, "flaxbert")
    program_cache.enable()
    assert program_cache.directory() is None
    (record,) = caplog.records
    assert record.getMessage().startswith("compiled programs are not kept for later runs: ")
    assert "JAX_COMPILATION_CACHE_DIR" in record.getMessage()


def test_user_without_a_home_directory_is_one_log_line(unset, monkeypatch, caplog):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    caplog.set_level(logging.INFO, "flaxbert")
    program_cache.enable()
    assert program_cache.directory() is None
    assert "Could not determine home directory" in caplog.text


def test_files_that_another_process_deletes_are_passed_over(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(100))
    stat = Path.stat

    def deleted(self, **options):
        if self.name == "one":
            raise FileNotFoundError(self)
        return stat(self, **options)

    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "stat", deleted)
    program_cache.prune(tmp_path, 50)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_least_recently_used_programs_are_deleted(tmp_path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        path = tmp_path / name[0] / f"{name}-cache"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    program_cache.prune(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.rglob("*-cache")) == [
        "middle-cache",
        "newest-cache",
    ]
    program_cache.prune(tmp_path, 200)
    assert len(list(tmp_path.rglob("*-cache"))) == 2

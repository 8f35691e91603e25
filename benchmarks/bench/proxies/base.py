"""What every proxy can do here: start, answer, be switched its own way, stop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from bench.client import status_of
from bench.places import TEMPLATES, free_port
from bench.program import Program, poll
from bench.setting import Setting, Tools
from bench.templates import render_file

#: Seconds that a proxy has until it answers.
START = 20.0


class Proxy:
    """One proxy in a folder of its own, pinned to the proxies' cores; `blue` and `green` are ports of its pools."""

    name: ClassVar[str] = ""
    websockets: ClassVar[bool] = True
    tls: ClassVar[bool] = False  # whether its configuration here has TLS
    way: ClassVar[str] = ""  # how it is switched; "" where it cannot be
    #: Whether clients' connections outlive its switches. h2load opens none anew, so that each switch of the others has a
    #: run of h2load of its own.
    keeps: ClassVar[bool] = True

    def __init__(
        self,
        setting: Setting,
        stack: ExitStack,
        *,
        blue: int = 0,
        green: int = 0,
        workers: int = 1,
        secure: bool = False,
    ):
        self.setting = setting
        self.secure = secure
        self.blue = blue or setting.backend.blue
        self.green = green or setting.backend.green
        self.workers = workers
        self.port = free_port()
        self.admin = free_port()
        self.folder = self._folder()
        command = self.prepare()
        self.program = stack.enter_context(
            Program(self.label, command, setting.proxy_cores, self.folder / "output.log", self.environment())
        )
        stack.callback(self.stopped)
        poll(self.answers, START, f"{self.label} answers", self.program)

    @property
    def label(self) -> str:
        """The name that results have."""
        return self.name

    @classmethod
    def missing(cls, tools: Tools) -> str:
        """Why it cannot be run here; "" if it can."""
        return "" if getattr(tools, cls.name) else f"no {cls.name} on this machine"

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        """The command that says which one it is."""
        raise NotImplementedError

    def prepare(self) -> list[str]:
        """Write the configuration; the command that runs it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        """More than the suite's own."""
        return None

    def answers(self) -> bool:
        """Whether it serves what its live pool serves."""
        return status_of(self.port, secure=self.secure) == 200

    def switch(self, pool: str) -> None:
        """Make a pool live, the product's own way; returns when the product says that it is done."""
        raise NotImplementedError

    def stopped(self) -> None:
        """Let go of what the switching held."""

    def url(self, path: str = "/") -> str:
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}{path}"

    def values(self) -> dict[str, object]:
        """What the templates name."""
        return {
            "FOLDER": self.folder,
            "FILES": self.setting.files,
            "CONNECTIONS": self.setting.files - 500,
            "PORT": self.port,
            "ADMIN": self.admin,
            "BLUE": self.blue,
            "GREEN": self.green,
            "WORKERS": self.workers,
        }

    def configure(self, template: str, **more: object) -> Path:
        """Render a template into the folder."""
        return render_file(TEMPLATES / template, self.folder / template, self.values() | more)

    def _folder(self) -> Path:
        for number in range(10_000):
            folder = self.setting.folder / f"{self.label}-{number}"
            if not folder.exists():
                folder.mkdir()
                return folder
        raise FileExistsError(self.setting.folder)

"""A real Slurm of one node for the length of a test: its own daemons, ports, key and configuration in one folder.

Needs root and Debian's packages slurm-wlm and munge. Nothing outside the folder is written: the commands in `bin` are
Slurm's own, told where the configuration is, for snakemake's executor drops SLURM_CONF from a job's environment.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "squeue", "srun", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare")

CONFIGURATION = """
ClusterName=one-node
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here, or None if one can."""
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "starting Slurm's daemons needs root"


class SlurmNode:
    """Use as `with SlurmNode(folder) as node:`; `node.bin` comes first on the path of whoever submits jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self._daemons = folder, folder / "bin", list[subprocess.Popen[bytes]]()

    def __enter__(self) -> SlurmNode:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        self._write_configuration()
        try:
            self._start_daemons()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def call(self, command: str, *words: str) -> str:
        """What a Slurm command prints; raises CalledProcessError where it fails."""
        done = subprocess.run(
            [str(self.bin / command), *words], check=True, timeout=300, text=True, stdout=subprocess.PIPE
        )
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job the controller has seen: JobId, JobState, Comment, ... as `scontrol show job` tells them."""
        lines = self.call("scontrol", "--oneliner", "show", "job").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def die(self) -> None:
        """What the loss of power does to the node: its daemon and all processes of its jobs end at once. It comes back.

        The controller learns from the daemon's first message that its jobs are gone.
        """
        daemon = self._daemons.pop()
        own = {process.pid: process for process in psutil.Process(daemon.pid).children(recursive=True)}
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "slurmstepd" and str(self.folder) in " ".join(_environment(process).values()):
                own |= {item.pid: item for item in (process, *process.children(recursive=True))}
        daemon.kill()
        for process in own.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        daemon.wait()
        self._start("slurmd", "-D")

    def _write_configuration(self) -> None:
        controller_port, node_port = _free_ports()
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            controller_port=controller_port,
            node_port=node_port,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(
            "Name=gpu Count=1\n"
        )  # a count that jobs can ask for; no device behind it
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        for name in COMMANDS:
            real = shutil.which(name)
            if real:
                script = f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n'
                (self.bin / name).write_text(script)
                (self.bin / name).chmod(0o755)

    def _start_daemons(self) -> None:
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._start("munged", "--foreground", "--force", *(f"--{k}={self.folder}/munge.{v}" for k, v in files.items()))
        self._wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        self._wait_for(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t"), "slurmd")

    def _start(self, name: str, *words: str) -> None:
        command = [shutil.which(name) or name, *words]
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        with (self.folder / f"{name}.out").open("wb") as log:
            self._daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _wait_for(self, ready, who: str, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if ready():
                    return
            except subprocess.CalledProcessError:
                pass
            if any(daemon.poll() is not None for daemon in self._daemons):
                break
            time.sleep(0.5)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.out"))
        raise RuntimeError(f"{who} did not come up:\n{logs}")

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=300)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}

"""What runs in the root of the real NixOS test driver: real_inside.py SCRIPT DIRECTORY START-SCRIPT...

Owns how that driver is called. Two of its imports are for its interactive mode
only, and empty here.
"""

import inspect
import sys
import types
from pathlib import Path

for name in ("ptpython", "ptpython.ipython", "ptpython.repl"):
    sys.modules[name] = types.ModuleType(name)
debugger = types.ModuleType("remote_pdb")
debugger.RemotePdb = object
sys.modules["remote_pdb"] = debugger
sys.path.insert(0, "/nixpkgs/nixos/lib/test-driver/src")

from test_driver.driver import Driver, DriverConfiguration, NodeConfiguration  # noqa: E402
from test_driver.logger import CompositeLogger, TerminalLogger  # noqa: E402
from test_driver.machine import QemuMachine  # noqa: E402
from test_driver.machine import retry as real_retry  # noqa: E402

import machine as own  # noqa: E402


def parameters(function) -> list[tuple]:
    """What a call may say: names and defaults, without types."""
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


# What our own driver offers is a part of what this one does.
pairs = {"retry": (own.retry, real_retry)}
for name, function in vars(own.Machine).items():
    if callable(function) and not name.startswith("_") and name != "log":
        pairs[name] = function, getattr(QemuMachine, name)
for name, (ours, theirs) in pairs.items():
    if parameters(ours) != parameters(theirs):
        sys.exit(f"{name} of tests/vm/machine.py takes {parameters(ours)}, of the NixOS test driver {parameters(theirs)}")

script, directory, *starts = map(Path, sys.argv[1:])
names = [start.name.removeprefix("run-").removesuffix("-vm") for start in starts]
configuration = DriverConfiguration(
    vms={name: NodeConfiguration(name=name, start_script=start) for name, start in zip(names, starts)},
    containers={},
    vlans=[1],
    global_timeout=3600,
    enable_ssh_backdoor=False,
    test_script=script,
)
out = directory / "out"
out.mkdir(exist_ok=True)
with Driver(configuration, out, CompositeLogger([TerminalLogger()])) as driver:
    try:
        driver.run_tests()
    finally:
        for machine in driver.machines:
            machine.crash()

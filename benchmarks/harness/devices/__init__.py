"""The devices that run.py measures on, by name."""

from harness.devices.cpu import Cpu
from harness.devices.cuda import Cuda, Trial

DEVICES = {device.name: device for device in (Cpu(), Cuda(), Trial())}

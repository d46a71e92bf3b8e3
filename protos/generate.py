"""Compiles the contract: Python modules into the tree, one descriptor image for buf, reflection and other languages.

Run as ``python protos/generate.py``; pip runs it at install. It needs no network: the rules of
protovalidate come out of the installed wheel, never from a copied ``.proto``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
IMAGE = ROOT / "sluice" / "descriptors.binpb"


def write_imports(path: Path) -> None:
    """Writes the descriptors our protos import: the well-known types and ``buf/validate/validate.proto``."""
    from google.protobuf import any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for module in (
        descriptor_pb2,
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
    ):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.append(descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary()))
    path.write_bytes(files.SerializeToString())


def compile_image(protos: Path, image: Path) -> list[str]:
    """Writes the descriptors of every proto below ``protos``, comments included; returns their names."""
    names = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        imports = Path(folder) / "imports.binpb"
        write_imports(imports)
        run(
            f"-I{protos}",
            f"--descriptor_set_in={imports}",
            "--include_source_info",
            "--include_imports",
            f"--descriptor_set_out={image}",
            *names,
        )
    return names


def generate(out: Path = ROOT, image: Path = IMAGE) -> None:
    """Compiles every proto below ``protos/``; protoc's complaint goes to stderr and ends the program."""
    names = compile_image(PROTOS, image)
    read, write = f"--descriptor_set_in={image}", (f"--python_out={out}", f"--pyi_out={out}")
    run(read, *write, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *names)
    run(read, *write, "buf/validate/validate.proto")
    for folder in sorted({Path(name).parent for name in names}):
        write_package(out / folder)


def write_package(folder: Path) -> None:
    """Writes ``__init__.py`` so that ``from sluice.dataset import v1`` gives every message and stub of the package."""
    modules = sorted(path.stem for path in folder.glob("*_pb2*.py"))
    lines = [f"from {'.'.join(folder.parts[-3:])}.{module} import *  # noqa: F403" for module in modules]
    folder.joinpath("__init__.py").write_text('"""Generated from the contract."""\n\n' + "\n".join(lines) + "\n")


def run(*arguments: str) -> None:
    """Runs protoc in this process; its complaints go to stderr."""
    if status := protoc.main(["protoc", *arguments]):
        raise SystemExit(status)


if __name__ == "__main__":
    # protoc looks for its plugin for typed stubs on the PATH; it lies beside this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    generate()
    sys.stdout.write(f"compiled the contract into {ROOT.name}/sluice and {IMAGE.relative_to(ROOT)}\n")

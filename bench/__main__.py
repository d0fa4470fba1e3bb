"""``python -m bench``."""

from bench.machine import restart_without_openblas_settings


def run() -> None:
    """Run the command in a process whose BLAS has its default settings."""
    restart_without_openblas_settings()
    from bench.cli import main  # not earlier: NumPy loads its BLAS

    main(prog_name="python -m bench")


if __name__ == "__main__":
    run()

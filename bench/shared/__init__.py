"""What every command of `bench` rests on: Hydra, mistakes in one line, files, terminals, plug-ins."""

"""The arms of `bench_engine`, each in a process of its own."""

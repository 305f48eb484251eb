"""Measurements that anyone can repeat: `make bench NAME=subject` runs bench_subject.py."""

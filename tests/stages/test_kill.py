"""Placeholder"""
import time
from demiglace.cli import main
from stage_kit import *
def test_speed(teacher, rows, tmp_path):
    t=time.time()
    assert main(arguments("distill", teacher=teacher, layers=2, output=tmp_path/"r", **rows, **QUICK))==0
    print("TIME", time.time()-t)
    t=time.time()
    assert in_child(arguments("distill", teacher=teacher, layers=2, output=tmp_path/"r2", **rows, **QUICK), lambda: None)==0
    print("TIME", time.time()-t)

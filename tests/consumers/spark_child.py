"""`spark_child.py SETTINGS.json STATEMENTS.json` prints each statement's rows; runs in the engines' environment."""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
for name, value in json.loads(Path(sys.argv[1]).read_text()).items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
answers = []
for statement in json.loads(Path(sys.argv[2]).read_text()):
    answers.append([row.asDict() for row in spark.sql(statement).collect()])
print(json.dumps(answers, default=str))

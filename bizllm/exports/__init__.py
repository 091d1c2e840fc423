"""Published nights copied into other systems, through these systems' own writers. One file each, found by name.

They get Arrow batches of one night at a time and know nothing of jobs or Iceberg.
"""

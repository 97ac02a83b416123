"""Where the runs of a comparison are carried out: processes of this machine, or Ray."""

"""``regstream run`` as a process, on the shipped files, driven only through its contract."""

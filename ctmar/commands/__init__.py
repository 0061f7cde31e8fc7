"""The commands, a file each: flags to settings; everything else is imported when a command runs."""

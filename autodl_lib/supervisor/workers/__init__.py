"""Runs as: the supervisor. The processes that do the work: started, given tasks, listened to, ended."""

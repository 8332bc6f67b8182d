"""The exit codes of all command lines, docs/contracts.md. The class of an error has one of them as `exit_code`."""

WRONG_INPUT = 2  # a person has to change something: never retried
PASSING_FAULT = 75  # the fault passes: the same command, run again, goes on
INTERRUPTED = 130  # as a shell calls SIGINT
TERMINATED = 143  # as a shell calls SIGTERM
READER_GONE = 141  # as a shell calls SIGPIPE

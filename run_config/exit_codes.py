"""The exit codes of all command lines (docs/contracts.md). Each error class has one of them as `exit_code`."""

WRONG_INPUT = 2  # a person has to change something: never retried
PARTLY_DONE = 3  # some inputs cannot be used; the results of the others are complete
PASSING_FAULT = 75  # a temporary fault: the same command resumes the work
INTERRUPTED = 130  # the exit code of a shell for SIGINT
TERMINATED = 143  # the exit code of a shell for SIGTERM
READER_GONE = 141  # the exit code of a shell for SIGPIPE

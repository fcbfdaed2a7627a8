"""The one error that a user's mistake raises."""


class UserError(Exception):
    """Input that cannot be worked with: printed as one line, exit code 2, no traceback.

    Args:
        value: what was given, as the user would recognise it.
        expectation: what was expected instead.
        next_command: what to type or do next.
    """

    def __init__(self, value: str, expectation: str, next_command: str) -> None:
        self.value = value
        self.expectation = expectation
        self.next_command = next_command
        super().__init__(f"{value}: {expectation}. Next: {next_command}")

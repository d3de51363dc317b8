"""The folders of the package, beside which a checkout has others."""

PACKAGE = (
    *("callbacks", "command_line", "commands", "datamodules", "errors", "files"),
    *("lightning_modules", "run_folder", "trainer"),
)

"""The socket server: connections, sessions, REST and the page; never imports torch."""

/* Telling the service manager how we are (systemd's sd_notify). */
#ifndef NET_NOTIFY_H
#define NET_NOTIFY_H

/*
 * Sends lines such as "READY=1\nSTATUS=..." to the socket that the
 * environment's NOTIFY_SOCKET names; without one it does nothing. Nobody
 * waits for an answer, and nothing depends on its arrival.
 */
void notify_manager(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

#endif

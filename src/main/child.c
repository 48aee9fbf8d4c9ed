/*
 * A command in the foreground, as sudo and timeout have theirs.
 *
 * It is a process group of its own. A signal that we pass on goes to all of
 * it, to the node under the sh under the npx, and what is typed at the
 * terminal (Ctrl-C) goes there and not to us, so that nobody gets it twice.
 * For that the group must be the terminal's foreground, if we are in it:
 *
 *   ours --child_start--> the child's --ended--> ours
 *                             |  ^
 *                     stopped |  | continued, in the foreground
 *                     (Ctrl-Z)v  |
 *                         ours, and we stop, too: the shell's turn
 *
 * Should we be killed, and the lock be lost with us, the child gets SIGTERM
 * from the kernel.
 */
#include "main/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

/* The terminal, if we are its foreground; -1 = no. */
static int
open_terminal(void)
{
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (fd != -1 && tcgetpgrp(fd) != getpgrp()) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* In the child, where SIGTTOU is blocked. Only an error comes back, through
 * the pipe, which the command's start closes. */
static _Noreturn void
become_command(const struct child *child, pid_t parent, char *const *argv,
    const sigset_t *mask, int pipe_fd)
{
	int error;

	setpgid(0, 0);
	if (child->terminal != -1)
		tcsetpgrp(child->terminal, getpid());
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	error = errno;
	(void)!write(pipe_fd, &error, sizeof(error));
	_exit(127);
}

static void
take_terminal_back(struct child *child)
{
	if (child->terminal == -1)
		return;
	tcsetpgrp(child->terminal, getpgrp());
	close(child->terminal);
	child->terminal = -1;
}

int
child_start(struct child *child, char *const *argv, const sigset_t *mask)
{
	pid_t parent = getpid();
	int fds[2], error = 0;

	if (pipe2(fds, O_CLOEXEC) != 0)
		return errno;
	*child = (struct child){ .terminal = open_terminal() };
	child->pid = fork();
	if (child->pid == 0)
		become_command(child, parent, argv, mask, fds[1]);
	error = errno;
	close(fds[1]);
	if (child->pid > 0) {
		/* Both sides do it, as either may come first. */
		setpgid(child->pid, child->pid);
		if (read(fds[0], &error, sizeof(error)) != sizeof(error))
			error = 0;
		else
			waitpid(child->pid, NULL, 0);
	}
	close(fds[0]);
	if (error != 0)
		take_terminal_back(child);
	return error;
}

void
child_signal(const struct child *child, int number)
{
	if (child->pid > 0 && !child->has_ended)
		kill(-child->pid, number);
}

/* Until a shell continues us, in the foreground or in the background. */
static void
stop_with_it(struct child *child)
{
	bool has_terminal = child->terminal != -1;

	if (has_terminal) {
		tcsetpgrp(child->terminal, getpgrp());
		kill(0, SIGSTOP);
		if (tcgetpgrp(child->terminal) == getpgrp())
			tcsetpgrp(child->terminal, child->pid);
		child_signal(child, SIGCONT);
	}
}

void
child_reap(struct child *child)
{
	int status;

	if (child->pid <= 0 || child->has_ended)
		return;
	while (waitpid(child->pid, &status, WNOHANG | WUNTRACED) ==
	    child->pid) {
		if (WIFSTOPPED(status)) {
			stop_with_it(child);
			continue;
		}
		child->has_ended = true;
		child->status = WIFSIGNALED(status) ?
		    128 + WTERMSIG(status) : WEXITSTATUS(status);
		take_terminal_back(child);
		return;
	}
}

/*
 * A command of the operator's: a snapshot before a migration, say.
 *
 *   RUNNING --exits------------------------------> OVER --task--> `ended`
 *      |  \                                          ^
 *      |   timeout, or destroyed                     |
 *      |     v                                       |
 *      |   STOPPING (SIGTERM) --exits----------------+
 *      |     | 5 s                                   |
 *      |     v                                       |
 *      |   KILLING (SIGKILL) --exits-----------------+
 *      +-- could not be started ---------------------+
 *
 * It may take minutes, and so it is no job for a helper thread, of which
 * there are few: the loop looks at it as at any connection. Its end is an
 * event of a pidfd, its output one of a pipe. The end counts, not the
 * pipe's: a daemon that the command leaves behind has the pipe open for ever.
 *
 * posix_spawn() neither copies the page tables of a big pooler nor leaves
 * locks of other threads held in the child. It returns when the command's
 * file has been found and its image begins, or with why not; the loop waits
 * for as long as that takes.
 *
 * All of the command's group is signalled, and before its leader is reaped:
 * until then nobody else can have its number.
 *
 * One that is destroyed while it runs has nobody to tell any more, but must
 * be reaped: it stays with the loop, and is gone with it at the latest.
 */
#include "net/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/inside.h"

#define COMMAND_MAGIC 0x636d6421u
/* From SIGTERM to SIGKILL. */
#define GRACE_US 5000000
/* A kernel without pidfd is asked this often. */
#define LOOK_US 50000
/* A pipe holds no more; so much is read when the command has ended. */
#define LAST_READS 16

enum command_state {
	COMMAND_RUNNING,
	COMMAND_STOPPING,
	COMMAND_KILLING,
	COMMAND_OVER,
};

struct command {
	uint32_t magic;
	enum command_state state;
	struct list node;		/* in loop->commands */
	struct loop *loop;
	pid_t pid;
	int pid_fd, output_fd;		/* -1 = none */
	struct event exit, output;
	struct loop_timer deadline;	/* for the next of the signals */
	struct loop_timer look;		/* where there is no pid_fd */
	struct loop_task tell;
	void (*ended)(void *arg, const struct command_result *result);
					/* NULL = destroyed */
	void *arg;
	struct command_result result;
	uint64_t started_us;
	size_t kept;			/* bytes in: */
	char text[2 * COMMAND_OUTPUT];
};

MEM_TYPE(command_type, command);

extern char **environ;

/*
 * The output
 */

static void
keep(struct command *command, const char *at, size_t len)
{
	if (command->kept + len > sizeof(command->text)) {
		memmove(command->text, command->text + command->kept -
		    COMMAND_OUTPUT, COMMAND_OUTPUT);
		command->kept = COMMAND_OUTPUT;
		command->result.output_is_cut = true;
	}
	memcpy(command->text + command->kept, at, len);
	command->kept += len;
}

/* False: nothing more for now, or for ever, and then it is closed. */
static bool
read_output(struct command *command)
{
	char block[COMMAND_OUTPUT];
	ssize_t got;

	if (command->output_fd == -1)
		return false;
	got = read(command->output_fd, block, sizeof(block));
	if (got > 0) {
		keep(command, block, (size_t)got);
		return true;
	}
	if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		event_del(&command->output);
		close(command->output_fd);
		command->output_fd = -1;
	}
	return false;
}

static void
on_output(evutil_socket_t fd, short what, void *arg)
{
	struct command *command = arg;

	(void)fd;
	(void)what;
	check_magic(command, COMMAND_MAGIC);
	read_output(command);
}

/*
 * Its end
 */

static void
command_free(struct command *command)
{
	if (event_initialized(&command->exit))
		event_del(&command->exit);
	if (event_initialized(&command->output))
		event_del(&command->output);
	if (command->pid_fd != -1)
		close(command->pid_fd);
	if (command->output_fd != -1)
		close(command->output_fd);
	loop_timer_clear(&command->deadline);
	loop_timer_clear(&command->look);
	loop_task_cancel(&command->tell);
	list_remove(&command->node);
	mem_delete(&command_type, command);
}

static void
on_tell(struct loop_task *task)
{
	struct command *command = container_of(task, struct command, tell);
	struct command_result *result = &command->result;
	size_t more;

	check_magic(command, COMMAND_MAGIC);
	check(command->state == COMMAND_OVER);
	if (command->ended == NULL) {
		command_free(command);
		return;
	}
	more = command->kept > COMMAND_OUTPUT ? command->kept -
	    COMMAND_OUTPUT : 0;
	result->output = (struct span){ command->text + more,
	    command->kept - more };
	result->output_is_cut = result->output_is_cut || more > 0;
	command->ended(command->arg, result);
}

static void
command_become_over(struct command *command)
{
	command->state = COMMAND_OVER;
	loop_timer_clear(&command->deadline);
	loop_timer_clear(&command->look);
	command->result.took_us = clock_now_us() - command->started_us;
	loop_defer(command->loop, &command->tell);
}

static void
note_status(struct command *command, int status)
{
	struct command_result *result = &command->result;

	if (command->state != COMMAND_RUNNING)
		result->end = COMMAND_TIMED_OUT;
	else
		result->end = WIFSIGNALED(status) ? COMMAND_SIGNALED :
		    COMMAND_EXITED;
	result->number = WIFSIGNALED(status) ? WTERMSIG(status) :
	    WEXITSTATUS(status);
}

/* True: it has ended. One that was told to go takes all its group along. */
static bool
command_reap(struct command *command, int how)
{
	siginfo_t info = { 0 };
	int status = 0;

	if (waitid(P_PID, (id_t)command->pid, &info, WEXITED | WNOWAIT |
	    how) == 0) {
		if (info.si_pid == 0)
			return false;
		if (command->state != COMMAND_RUNNING)
			kill(-command->pid, SIGKILL);
	}
	/* No status: somebody else took it. Then it did not succeed. */
	if (waitpid(command->pid, &status, 0) != command->pid)
		status = 0xff00;
	note_status(command, status);
	return true;
}

static void
command_look(struct command *command)
{
	if (!command_reap(command, WNOHANG)) {
		if (command->pid_fd == -1)
			loop_timer_set(command->loop, &command->look,
			    clock_now_us() + LOOK_US);
		else
			event_add(&command->exit, NULL);
		return;
	}
	for (unsigned i = 0; i < LAST_READS && read_output(command); i++)
		continue;
	command_become_over(command);
}

static void
on_exit_event(evutil_socket_t fd, short what, void *arg)
{
	struct command *command = arg;

	(void)fd;
	(void)what;
	check_magic(command, COMMAND_MAGIC);
	command_look(command);
}

static void
on_look(struct loop_timer *timer)
{
	command_look(container_of(timer, struct command, look));
}

static void
command_stop(struct command *command)
{
	command->state = COMMAND_STOPPING;
	kill(-command->pid, SIGTERM);
	kill(-command->pid, SIGCONT);
	loop_timer_set(command->loop, &command->deadline, clock_now_us() +
	    GRACE_US);
}

static void
on_deadline(struct loop_timer *timer)
{
	struct command *command = container_of(timer, struct command,
	    deadline);

	check_magic(command, COMMAND_MAGIC);
	if (command->state == COMMAND_RUNNING) {
		command_stop(command);
	} else if (command->state == COMMAND_STOPPING) {
		command->state = COMMAND_KILLING;
		kill(-command->pid, SIGKILL);
	}
}

/*
 * Its start
 */

static bool
is_replaced(const char *entry, const char *const *additions)
{
	size_t len = strcspn(entry, "=");

	for (; additions != NULL && *additions != NULL; additions++)
		if (strncmp(entry, *additions, len + 1) == 0)
			return true;
	return false;
}

/* One block, of pointers to texts that are others'. NULL: out of memory. */
static char **
make_environment(const char *const *additions)
{
	size_t count = 1, at = 0;
	char **made;

	for (char **entry = environ; *entry != NULL; entry++)
		count++;
	for (size_t i = 0; additions != NULL && additions[i] != NULL; i++)
		count++;
	made = mem_alloc(count * sizeof(*made));
	if (made == NULL)
		return NULL;
	for (char **entry = environ; *entry != NULL; entry++)
		if (!is_replaced(*entry, additions))
			made[at++] = *entry;
	for (size_t i = 0; additions != NULL && additions[i] != NULL; i++)
		made[at++] = (char *)(uintptr_t)additions[i];
	made[at] = NULL;
	return made;
}

/* 0 or an errno. `output` is the end of the pipe that it writes to. */
static int
spawn_with(pid_t *ret_pid, const struct command_settings *settings,
    char **environment, int output, posix_spawn_file_actions_t *actions,
    posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	int error = 0;

	/* Ours are blocked, and SIGPIPE is ignored. */
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP |
	    POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(attributes, 0);
	posix_spawnattr_setsigmask(attributes, &none);
	posix_spawnattr_setsigdefault(attributes, &all);
	/* All of ours close on exec, as far as we opened them. Libraries may
	 * have others. */
	if ((error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null",
	    O_RDONLY, 0)) != 0 ||
	    (error = posix_spawn_file_actions_adddup2(actions, output,
	    1)) != 0 ||
	    (error = posix_spawn_file_actions_adddup2(actions, output,
	    2)) != 0 ||
	    (error = posix_spawn_file_actions_addclosefrom_np(actions,
	    3)) != 0)
		return error;
	return posix_spawnp(ret_pid, settings->argv[0], actions, attributes,
	    settings->argv, environment);
}

static int
spawn(pid_t *ret_pid, const struct command_settings *settings, int output)
{
	char **environment = make_environment(settings->environment);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int error = ENOMEM;

	if (environment == NULL)
		return error;
	if (posix_spawn_file_actions_init(&actions) == 0) {
		if (posix_spawnattr_init(&attributes) == 0) {
			error = spawn_with(ret_pid, settings, environment,
			    output, &actions, &attributes);
			posix_spawnattr_destroy(&attributes);
		}
		posix_spawn_file_actions_destroy(&actions);
	}
	mem_free(environment);
	return error;
}

/* 0 or an errno. */
static int
open_output(struct command *command, int *ret_write_end)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) != 0)
		return errno;
	command->output_fd = fds[0];
	*ret_write_end = fds[1];
	/* Ours alone: the command may well wait to be read. */
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	return event_assign(&command->output, loop_base(command->loop),
	    fds[0], EV_READ | EV_PERSIST, on_output, command) == 0 &&
	    event_add(&command->output, NULL) == 0 ? 0 : ENOMEM;
}

static void
watch_exit(struct command *command)
{
	command->pid_fd = (int)syscall(SYS_pidfd_open, command->pid, 0);
	if (command->pid_fd != -1 &&
	    (event_assign(&command->exit, loop_base(command->loop),
	    command->pid_fd, EV_READ, on_exit_event, command) != 0 ||
	    event_add(&command->exit, NULL) != 0)) {
		close(command->pid_fd);
		command->pid_fd = -1;
	}
	if (command->pid_fd == -1)
		loop_timer_set(command->loop, &command->look,
		    clock_now_us() + LOOK_US);
}

struct command *
command_start(struct loop *loop, const struct command_settings *settings,
    void (*ended)(void *arg, const struct command_result *result), void *arg)
{
	struct command *command = mem_new(&command_type);
	int output = -1, error;

	if (command == NULL)
		return NULL;
	command->magic = COMMAND_MAGIC;
	command->loop = loop;
	command->pid_fd = command->output_fd = -1;
	command->ended = ended;
	command->arg = arg;
	command->started_us = clock_now_us();
	list_append(&loop->commands, &command->node);
	loop_timer_init(&command->deadline, on_deadline);
	loop_timer_init(&command->look, on_look);
	loop_task_init(&command->tell, on_tell);
	error = open_output(command, &output);
	if (error == 0)
		error = spawn(&command->pid, settings, output);
	if (output != -1)
		close(output);
	if (error != 0) {
		command->result.end = COMMAND_NOT_STARTED;
		command->result.number = error;
		command_become_over(command);
		return command;
	}
	watch_exit(command);
	if (settings->timeout_us != 0)
		loop_timer_set(loop, &command->deadline, command->started_us +
		    settings->timeout_us);
	return command;
}

void
command_destroy(struct command *command)
{
	if (command == NULL)
		return;
	check_magic(command, COMMAND_MAGIC);
	check(command->ended != NULL);
	if (command->state == COMMAND_OVER) {
		command_free(command);
		return;
	}
	command->ended = NULL;
	if (command->state == COMMAND_RUNNING)
		command_stop(command);
}

/* The loop's end: those that were told to go must go now. All others have
 * owners, who should have destroyed them. */
void
command_finish(struct loop *loop)
{
	struct list *node;

	while ((node = list_pop(&loop->commands)) != NULL) {
		struct command *command = container_of(node, struct command,
		    node);

		check_magic(command, COMMAND_MAGIC);
		check(command->ended == NULL);
		if (command->state != COMMAND_OVER) {
			kill(-command->pid, SIGKILL);
			command_reap(command, 0);
		}
		command_free(command);
	}
}

/*
 * Results
 */

bool
command_succeeded(const struct command_result *result)
{
	return result->end == COMMAND_EXITED && result->number == 0;
}

void
command_describe(const struct command_result *result, struct buf *out)
{
	const char *name = result->end == COMMAND_NOT_STARTED ?
	    strerrordesc_np(result->number) : sigdescr_np(result->number);

	switch (result->end) {
	case COMMAND_EXITED:
		buf_printf(out, "exited with status %d", result->number);
		break;
	case COMMAND_SIGNALED:
		buf_printf(out, "was killed by signal %d (%s)",
		    result->number, name != NULL ? name : "unknown");
		break;
	case COMMAND_TIMED_OUT:
		buf_add_text(out, "was killed: it took longer than it may");
		break;
	case COMMAND_NOT_STARTED:
		buf_printf(out, "could not be started: %s",
		    name != NULL ? name : "unknown error");
		break;
	}
}

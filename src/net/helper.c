/*
 * Helper threads: for the few things that cannot be done without waiting,
 * or take so long that a loop's other sessions would notice (key stretching,
 * getaddrinfo, reading files, running a command).
 *
 * There are HELPERS of them in the process, started when the first job comes;
 * a pooler that needs none has none. A job goes through one queue under one
 * mutex, is worked on, and returns as mail to the loop it came from.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "net/loop.h"

#define HELPERS 4

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct loop_mail *first, **last;	/* jobs, by their mail */
	pthread_t thread[HELPERS];
	unsigned count;			/* threads running */
	unsigned idle;			/* ... of which wait for work */
	bool stopping;
} helpers = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.last = &helpers.first,
};

static void
helper_return(struct loop *loop, struct loop_mail *mail)
{
	struct loop_job *job = container_of(mail, struct loop_job, mail);

	(void)loop;
	job->done(job);
}

static void
helper_work(struct loop_job *job)
{
	job->work(job);
	loop_post(job->loop, &job->mail);
}

/* Called with the lock held. NULL: it is time to go. */
static struct loop_job *
helper_next(void)
{
	struct loop_mail *mail;

	helpers.idle++;
	while (helpers.first == NULL && !helpers.stopping)
		pthread_cond_wait(&helpers.work, &helpers.lock);
	helpers.idle--;
	if (helpers.stopping)
		return NULL;
	mail = helpers.first;
	helpers.first = mail->next;
	if (helpers.first == NULL)
		helpers.last = &helpers.first;
	return container_of(mail, struct loop_job, mail);
}

static void *
helper_main(void *arg)
{
	struct loop_job *job;

	(void)arg;
	pthread_setname_np(pthread_self(), "helper");
	pthread_mutex_lock(&helpers.lock);
	while ((job = helper_next()) != NULL) {
		pthread_mutex_unlock(&helpers.lock);
		helper_work(job);
		pthread_mutex_lock(&helpers.lock);
	}
	pthread_mutex_unlock(&helpers.lock);
	return NULL;
}

/*
 * Called with the lock held, when a job finds no idle helper. Signals are the
 * main thread's: helpers block them all, inherited from here.
 */
static void
helper_start(void)
{
	sigset_t all, before;

	if (helpers.count == HELPERS)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&helpers.thread[helpers.count], NULL, helper_main,
	    NULL) == 0)
		helpers.count++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static unsigned
helper_queue_len(void)
{
	unsigned len = 0;

	for (struct loop_mail *mail = helpers.first;
	    mail != NULL && len <= HELPERS; mail = mail->next)
		len++;
	return len;
}

void
loop_job_start(struct loop *loop, struct loop_job *job)
{
	bool alone;

	job->loop = loop;
	job->mail.read = helper_return;
	job->mail.next = NULL;
	pthread_mutex_lock(&helpers.lock);
	*helpers.last = &job->mail;
	helpers.last = &job->mail.next;
	if (helpers.idle < helper_queue_len())
		helper_start();
	alone = helpers.count == 0;
	if (alone) {
		/* No thread to be had, and so nobody else's job in the queue:
		 * late is better than never. */
		helpers.first = NULL;
		helpers.last = &helpers.first;
	}
	pthread_mutex_unlock(&helpers.lock);
	if (alone)
		helper_work(job);
	else
		pthread_cond_signal(&helpers.work);
}

void
loop_helpers_stop(void)
{
	unsigned count;

	pthread_mutex_lock(&helpers.lock);
	helpers.stopping = true;
	count = helpers.count;
	pthread_mutex_unlock(&helpers.lock);
	pthread_cond_broadcast(&helpers.work);
	for (unsigned i = 0; i < count; i++)
		pthread_join(helpers.thread[i], NULL);
	/* Jobs that were never begun are forgotten: their loops are gone. */
	pthread_mutex_lock(&helpers.lock);
	helpers.first = NULL;
	helpers.last = &helpers.first;
	helpers.count = 0;
	helpers.stopping = false;
	pthread_mutex_unlock(&helpers.lock);
}

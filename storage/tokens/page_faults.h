/* Pages of a mapped file that cannot be read any more (it was cut off, its disk fails) raise SIGBUS. A thread between
 * begin_reading and end_reading that has set `fault_return` goes on there instead of ending the process.
 */
#ifndef TRAINWRIGHT_PAGE_FAULTS_H
#define TRAINWRIGHT_PAGE_FAULTS_H

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static __thread sigjmp_buf *volatile fault_return; /* where this thread goes on, while it reads mapped pages */
static pthread_mutex_t handler_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction handler_before;
static int handler_users;

static void on_fault(int signal_number) {
    if (fault_return)
        siglongjmp(*fault_return, 1);
    sigaction(signal_number, &handler_before, NULL); /* not ours: on return the fault comes again, to whom it was meant */
}

static void begin_reading(void) {
    pthread_mutex_lock(&handler_lock);
    if (handler_users++ == 0) {
        struct sigaction ours = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
        sigemptyset(&ours.sa_mask);
        sigaction(SIGBUS, &ours, &handler_before);
    }
    pthread_mutex_unlock(&handler_lock);
}

static void end_reading(void) {
    fault_return = NULL;
    pthread_mutex_lock(&handler_lock);
    if (--handler_users == 0)
        sigaction(SIGBUS, &handler_before, NULL);
    pthread_mutex_unlock(&handler_lock);
}

#endif

/* The least that a server can do for a 1 KiB hit: wait, read, send a constant.

   `limit PORT` answers every request head on 127.0.0.1:PORT with the same 1 KiB, from one epoll
   set. It parses nothing, looks nothing up and logs nothing; what it takes is what the kernel
   takes. Clients may send several heads at once, but must not cut one. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY 1024
#define EVENTS 256
#define BACKLOG 4096

static const char head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n";
static char answer[sizeof head - 1 + BODY];

static int listen_on(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&to, sizeof to) || listen(fd, BACKLOG)) {
        perror("limit");
        exit(1);
    }
    return fd;
}

static void watch(int set, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

static void take_all(int set, int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(set, fd);
    }
}

static void serve(int fd)
{
    static char data[65536];
    ssize_t size = recv(fd, data, sizeof data, 0);
    char *at = data, *end = data + (size > 0 ? size : 0);
    if (size <= 0) {
        close(fd);
        return;
    }
    while ((at = memmem(at, end - at, "\r\n\r\n", 4))) {
        at += 4;
        if (send(fd, answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) {
            close(fd);
            return;
        }
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0), set = epoll_create1(0);
    memcpy(answer, head, sizeof head - 1);
    memset(answer + sizeof head - 1, 'x', BODY);
    watch(set, listener);
    for (;;) {
        int count = epoll_wait(set, events, EVENTS, -1);
        for (int at = 0; at < count; at++) {
            if (events[at].data.fd == listener)
                take_all(set, listener);
            else
                serve(events[at].data.fd);
        }
    }
}

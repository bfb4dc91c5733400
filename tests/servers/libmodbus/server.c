/* A Modbus TCP server for the tests, on libmodbus: another code base than the client under test.
 * Usage: server PORT. Says "ready", then obeys one command a line on stdin and answers "ok":
 *   holding|input|coil|discrete ADDRESS VALUE
 *   hole FIRST LAST      reads that touch these registers are refused (exception 2)
 *   silent UNIT          this unit gets no answer
 *   drop                 closes every connection
 *   count                answers with the number of requests so far
 */
#include <errno.h>
#include <modbus.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static modbus_t *context;
static modbus_mapping_t *memory;
static int hole_first = -1, hole_last = -1, silent = -1, listener;
static long requests;
static fd_set open_sockets;

static void obey(char *line) {
  char what[16] = "";
  int first = 0, second = 0;
  sscanf(line, "%15s %d %d", what, &first, &second);
  if (!strcmp(what, "holding")) memory->tab_registers[first] = second;
  if (!strcmp(what, "input")) memory->tab_input_registers[first] = second;
  if (!strcmp(what, "coil")) memory->tab_bits[first] = second;
  if (!strcmp(what, "discrete")) memory->tab_input_bits[first] = second;
  if (!strcmp(what, "hole")) hole_first = first, hole_last = second;
  if (!strcmp(what, "silent")) silent = first;
  if (!strcmp(what, "drop"))
    for (int s = 3; s < FD_SETSIZE; s++)
      if (s != listener && FD_ISSET(s, &open_sockets)) close(s), FD_CLR(s, &open_sockets);
  if (!strcmp(what, "count")) printf("%ld\n", requests);
  else puts("ok");
  fflush(stdout);
}

static void serve(int socket) {
  uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
  modbus_set_socket(context, socket);
  int length = modbus_receive(context, query);
  if (length == -1) {
    close(socket);
    FD_CLR(socket, &open_sockets);
    return;
  }
  requests++;
  int unit = query[6], function = query[7], address = query[8] << 8 | query[9], count = query[10] << 8 | query[11];
  if (unit == silent) return;
  int registers = function == MODBUS_FC_READ_HOLDING_REGISTERS || function == MODBUS_FC_READ_INPUT_REGISTERS;
  if (registers && hole_first >= 0 && address <= hole_last && address + count > hole_first)
    modbus_reply_exception(context, query, MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS);
  else
    modbus_reply(context, query, length, memory);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  signal(SIGPIPE, SIG_IGN);
  context = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
  memory = modbus_mapping_new(4096, 4096, 4096, 4096);
  listener = modbus_tcp_listen(context, 8);
  if (!context || !memory || listener == -1) {
    fprintf(stderr, "cannot listen: %s\n", modbus_strerror(errno));
    return 1;
  }
  FD_ZERO(&open_sockets);
  FD_SET(STDIN_FILENO, &open_sockets);
  FD_SET(listener, &open_sockets);
  puts("ready");
  fflush(stdout);
  for (;;) {
    fd_set ready = open_sockets;
    if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) == -1) return 1;
    for (int s = 0; s < FD_SETSIZE; s++) {
      if (!FD_ISSET(s, &ready) || !FD_ISSET(s, &open_sockets)) continue;
      if (s == STDIN_FILENO) {
        char line[128];
        int end = 0;
        while (end < 127 && read(STDIN_FILENO, line + end, 1) == 1 && line[end] != '\n') end++;
        line[end] = 0;
        if (!end) return 0;
        obey(line);
      } else if (s == listener) {
        int one = listener;
        int accepted = modbus_tcp_accept(context, &one);
        if (accepted != -1) FD_SET(accepted, &open_sockets);
      } else {
        serve(s);
      }
    }
  }
}

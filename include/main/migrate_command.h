/* pgsluice migrate: runs a command with the migration lock held. */
#ifndef MAIN_MIGRATE_COMMAND_H
#define MAIN_MIGRATE_COMMAND_H

/* argv[0] is "migrate"; returns the status to exit with. */
int migrate_command(int argc, char **argv);

#endif

/*
 * The main() of a fuzz target that is not fuzzing: it runs files through it.
 *
 * `make check` starts each target without arguments; it then takes every
 * file of $FUZZ_CORPUS/<its name without "fuzz_">. With arguments it takes
 * those files, and all files of those folders, which is how one looks at a
 * crash that libFuzzer has found.
 *
 * An input that takes longer than a few seconds is a failure like a crash:
 * a parser that a peer can stall is a hole.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECONDS_AN_INPUT 10

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char *
read_file(const char *path, size_t *ret_len)
{
	FILE *file = fopen(path, "rb");
	char *text = NULL;
	size_t size = 0;

	if (file == NULL)
		return NULL;
	FILE *all = open_memstream(&text, &size);
	for (int c; all != NULL && (c = getc(file)) != EOF; )
		putc(c, all);
	fclose(file);
	if (all == NULL || fclose(all) != 0)
		return NULL;
	*ret_len = size;
	return text;
}

static void
replay(const char *path)
{
	size_t len;
	char *text = read_file(path, &len);

	if (text == NULL) {
		perror(path);
		exit(1);
	}
	/* an exact copy: one byte read behind the end is then one too many */
	uint8_t *input = malloc(len != 0 ? len : 1);
	if (input == NULL)
		exit(1);
	memcpy(input, text, len);
	free(text);
	fprintf(stderr, "%s\n", path);	/* the last one named is the culprit */
	alarm(SECONDS_AN_INPUT);
	LLVMFuzzerTestOneInput(input, len);
	alarm(0);
	free(input);
}

static unsigned
replay_folder(const char *folder)
{
	struct dirent **names = NULL;
	int count = scandir(folder, &names, NULL, alphasort);
	unsigned replayed = 0;
	char path[4096];

	for (int i = 0; i < count; i++) {
		if (names[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder,
			    names[i]->d_name);
			replay(path);
			replayed++;
		}
		free(names[i]);
	}
	free(names);
	return replayed;
}

int
main(int argc, char **argv)
{
	const char *corpus = getenv("FUZZ_CORPUS");
	const char *name = strrchr(argv[0], '/');
	char folder[2048];
	struct stat about;
	unsigned replayed = 0;

	for (int i = 1; i < argc; i++) {
		if (stat(argv[i], &about) == 0 && S_ISDIR(about.st_mode)) {
			replayed += replay_folder(argv[i]);
		} else {
			replay(argv[i]);
			replayed++;
		}
	}
	if (argc == 1 && corpus != NULL) {
		name = name != NULL ? name + 1 : argv[0];
		if (strncmp(name, "fuzz_", 5) == 0)
			name += 5;
		snprintf(folder, sizeof(folder), "%s/%s", corpus, name);
		replayed = replay_folder(folder);
		if (replayed == 0)
			fprintf(stderr, "%s: no input there\n", folder);
	}
	printf("%u inputs replayed\n", replayed);
	return replayed != 0 ? 0 : 1;
}

// For what runs on a developer's machine: the file .env, if there is one. To
// be imported first. What is in the environment already goes before.

import { existsSync } from 'node:fs'

if (existsSync('.env'))
    process.loadEnvFile('.env')

// Prisma 6, as released, with its JavaScript engine. Its default is a native
// one, which is downloaded by npm's scripts and not to be had from npm: what
// that sends is played by ../../drivers/prisma6_mixed.py.

import { PrismaPg } from '@prisma/adapter-pg'
import prismaClient from '@prisma/client'
import { playPrisma } from '../prisma_player.mjs'

playPrisma(PrismaPg, prismaClient.PrismaClient)

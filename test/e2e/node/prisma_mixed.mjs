import { PrismaPg } from '@prisma/adapter-pg'
import prismaClient from '@prisma/client'
import { playPrisma } from './prisma_player.mjs'

playPrisma(PrismaPg, prismaClient.PrismaClient)

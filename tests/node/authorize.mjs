// Somebody at a browser logs in and allows what a client asks for. Prints where the browser was sent back to.
//
//   node authorize.mjs URL REDIRECT NAME PASSWORD
import { createServer } from 'node:http';
import { report, withPage } from './browser.mjs';

const [url, redirect, name, password] = process.argv.slice(2);
const callbacks = createServer((request, answer) => answer.end('<!doctype html><title>back</title>back'));
await new Promise((listening) => callbacks.listen(Number(new URL(redirect).port), '127.0.0.1', listening));

const seen = await withPage(
  () => undefined,
  async (page) => {
    await page.goto(url);
    await page.getByLabel('Name or e-mail address').fill(name);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('button', { name: 'Allow' }).click();
    await page.waitForURL(`${redirect}?*`);
    return { back: page.url() };
  },
);
callbacks.close();
report(seen);

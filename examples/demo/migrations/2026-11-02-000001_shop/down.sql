DROP TABLE credits;
DROP TABLE accounts;
DROP TABLE announcements;
DROP TABLE payments;
DROP TABLE orders;
